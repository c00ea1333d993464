(import "env" "rand" (func $rand (result i32)))
(func $answer (param i32 i32) (result i64) (i64.const 0))
