;; Says the same ten thousand times, then answers.
(import "steadfast_1" "log" (func $log (param i32 i32 i32)))
(data (i32.const 64) "{\"ok\":{}}")
(func $answer (param i32 i32) (result i64)
  (local $left i32)
  (local.set $left (i32.const 10000))
  (loop $again
    (call $log (i32.const 1) (i32.const 0) (i32.const 65536))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (call $result (i32.const 64) (i32.const 9)))
