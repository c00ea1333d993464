(func $answer (param i32 i32) (result i64) unreachable)
