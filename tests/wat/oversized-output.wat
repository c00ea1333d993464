(func $answer (param i32 i32) (result i64) (call $result (i32.const 0) (i32.const 0x7fffffff)))
