;; Opens its first argument below the first mount and exits with the WASI errno (63: not permitted, 44: not there).
;; With a second argument the file is to be created.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $end i32) (local $count i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (local.set $count (i32.load (i32.const 0)))
    (drop (call $args_get (i32.const 32) (i32.const 1024)))
    (local.set $end (i32.const 1024))
    (loop $length
      (local.set $end (i32.add (local.get $end) (i32.const 1)))
      (br_if $length (i32.load8_u (local.get $end))))
    (call $proc_exit
      (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.sub (local.get $end) (i32.const 1024))
        (i32.gt_u (local.get $count) (i32.const 1))
        (select (i64.const 64) (i64.const 2) (i32.gt_u (local.get $count) (i32.const 1)))
        (i64.const 0) (i32.const 0) (i32.const 16)))))
