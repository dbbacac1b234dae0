;; Sleeps until 100 ms from now by an absolute time of the monotonic clock; exits with 0 when that took 100 to 5000 ms.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func $now (result i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 256)))
    (i64.load (i32.const 256)))
  (func (export "_start") (local $then i64) (local $took i64)
    (local.set $then (call $now))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.add (local.get $then) (i64.const 100000000)))
    (i32.store16 (i32.const 40) (i32.const 1))
    (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
    (local.set $took (i64.sub (call $now) (local.get $then)))
    (call $proc_exit
      (i32.or (i64.lt_u (local.get $took) (i64.const 100000000)) (i64.gt_u (local.get $took) (i64.const 5000000000))))))
