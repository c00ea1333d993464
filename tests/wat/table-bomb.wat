(table $table 1 funcref)
(func $answer (param i32 i32) (result i64)
  (drop (table.grow $table (ref.null func) (i32.const 1000000)))
  (i64.const 0))
