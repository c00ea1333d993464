;; No JSON at all.
(data (i32.const 64) "ok!")
(func $answer (param i32 i32) (result i64) (call $result (i32.const 64) (i32.const 3)))
