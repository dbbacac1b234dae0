;; Fills the garbage collector's heap with 800 MB that it keeps.
(module (memory (export "memory") 1)
  (type $data (array (mut i64)))
  (type $node (struct (field (ref null $node)) (field (ref null $data))))
  (global $all (mut (ref null $node)) (ref.null $node))
  (func (export "_start") (local $i i32)
    (loop $more
      (global.set $all (struct.new $node (global.get $all) (array.new $data (i64.const 1) (i32.const 1000000))))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))))
