(import "wasi_snapshot_preview1" "clock_time_get"
  (func $clock (param i32 i64 i32) (result i32)))
(func $answer (param i32 i32) (result i64) (i64.const 0))
