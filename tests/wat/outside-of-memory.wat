(func $answer (param i32 i32) (result i64) (call $result (i32.const 1048570) (i32.const 100)))
