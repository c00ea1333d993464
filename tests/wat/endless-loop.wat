(func $answer (param i32 i32) (result i64) (loop $again (br $again)) (i64.const 0))
