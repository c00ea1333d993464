;; A node is ranked twice. Only when it is asked about a VM, as the id must be one of the question's.
(data (i32.const 64) "{\"ok\":{}}")
(data (i32.const 128) "{\"ok\":{\"vms\":[{\"vm\":\"00000000-0000-4000-8000-000000000001\",\"nodes\":[{\"node\":1},{\"node\":1}]}]}}")
(func $answer (param $ptr i32) (param $len i32) (result i64)
  (if (result i64) (i32.gt_u (local.get $len) (i32.const 400))
    (then (call $result (i32.const 128) (i32.const 94)))
    (else (call $result (i32.const 64) (i32.const 9)))))
