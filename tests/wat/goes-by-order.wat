;; Its score depends on where things stand in the question: the sum of each byte times its place, modulo 10.
(data (i32.const 64) "{\"ok\":{\"score\":{\"value\":0}}}")
(func $answer (param $ptr i32) (param $len i32) (result i64)
  (local $at i32) (local $sum i32)
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $len)))
      (local.set $sum (i32.add (local.get $sum)
        (i32.mul (local.get $at) (i32.load8_u (i32.add (local.get $ptr) (local.get $at))))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
  (i32.store8 (i32.const 88) (i32.add (i32.const 48) (i32.rem_u (local.get $sum) (i32.const 10))))
  (call $result (i32.const 64) (i32.const 28)))
