;; A score that no kind may have.
(data (i32.const 64) "{\"ok\":{\"score\":{\"value\":1000000001}}}")
(func $answer (param i32 i32) (result i64) (call $result (i32.const 64) (i32.const 37)))
