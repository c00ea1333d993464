;; It is refused before it is ever asked.
(start $for_ever)
(func $for_ever (loop $again (br $again)))
(func $answer (param i32 i32) (result i64) (i64.const 0))
