;; Writes 100,000 lines of 100 bytes to stdout.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\40\00\00\00\64\00\00\00")
  (data (i32.const 64) "a line of one hundred bytes, written a hundred thousand times: that makes ten million bytes of log.\0a")
  (func (export "_start") (local $i i32)
    (loop $next
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))))
