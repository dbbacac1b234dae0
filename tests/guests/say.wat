;; Writes its arguments as they are, each by one write: the first character says where to (1 stdout, 2 stderr).
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (func (export "_start") (local $i i32) (local $start i32) (local $end i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $args_get (i32.const 32) (i32.const 4096)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (i32.load (i32.const 0))))
        (local.set $start (i32.load (i32.add (i32.const 32) (i32.mul (local.get $i) (i32.const 4)))))
        (local.set $end (local.get $start))
        (loop $length
          (local.set $end (i32.add (local.get $end) (i32.const 1)))
          (br_if $length (i32.load8_u (local.get $end))))
        (i32.store (i32.const 8) (i32.add (local.get $start) (i32.const 1)))
        (i32.store (i32.const 12) (i32.sub (i32.sub (local.get $end) (local.get $start)) (i32.const 1)))
        (drop (call $fd_write (i32.sub (i32.load8_u (local.get $start)) (i32.const 48))
                              (i32.const 8) (i32.const 1) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))))
