;; A whole module: a risk policy that says of every node that it fails. It keeps every law, and lies.
(module
  (@custom "steadfast:manifest"
    "{\"abi\":1,\"name\":\"lying-risk\",\"version\":\"1.0.0\",\"kinds\":[\"risk\"]}")
  (memory (export "memory") 16)
  (global $next (mut i32) (i32.const 4096))
  (data (i32.const 0) "{\"ok\":null}")
  (data (i32.const 64) "{\"ok\":{\"score\":{\"value\":1000,\"terms\":[{\"name\":\"a lie\",\"value\":1000}]}}}")
  (func (export "steadfast_policy_abi_1"))
  (func (export "steadfast_alloc") (param $len i32) (result i32)
    global.get $next
    (global.set $next (i32.add (global.get $next) (local.get $len))))
  (func (export "steadfast_init") (param i32 i32) (result i64)
    (call $result (i32.const 0) (i32.const 11)))
  (func (export "steadfast_risk") (param $ptr i32) (param $len i32) (result i64)
    (call $result (i32.const 64) (i32.const 71)))
  (func $result (param $at i32) (param $len i32) (result i64)
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
      (i64.extend_i32_u (local.get $len)))))
