;; As good, with other bytes.
(data (i32.const 128) "{\"ok\":{}}")
(func $answer (param i32 i32) (result i64) (call $result (i32.const 128) (i32.const 9)))
