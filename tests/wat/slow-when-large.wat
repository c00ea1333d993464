;; Works at leisure: some 4,200 units of fuel for each byte of the question.
(data (i32.const 64) "{\"ok\":{}}")
(func $answer (param $ptr i32) (param $len i32) (result i64)
  (local $left i32)
  (local.set $left (i32.mul (local.get $len) (i32.const 600)))
  (loop $again
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (i32.gt_s (local.get $left) (i32.const 0))))
  (call $result (i32.const 64) (i32.const 9)))
