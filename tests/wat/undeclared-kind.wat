;; Exports kinds that the manifest does not name.
(export "steadfast_risk" (func $answer))
(func $answer (param i32 i32) (result i64) (i64.const 0))
