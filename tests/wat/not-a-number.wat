;; NaN is no JSON, and no score.
(data (i32.const 64) "{\"ok\":{\"vms\":[{\"vm\":\"a\",\"nodes\":[{\"node\":1,\"score\":{\"value\":NaN}}]}],\"score\":{\"value\":NaN}}}")
(func $answer (param i32 i32) (result i64) (call $result (i32.const 64) (i32.const 92)))
