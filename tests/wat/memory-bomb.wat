(func $answer (param i32 i32) (result i64)
  (loop $again (drop (memory.grow (i32.const 64))) (br $again))
  (i64.const 0))
