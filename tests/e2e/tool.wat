;; Does what its arguments say, one after the other. The first character of an argument is the deed, the rest its object;
;; a file is the number of a mount (0 is the first) and a path below it.
;;
;;   o<text> / e<text>  a line on stdout / stderr       s<n>     sleep n tenths of a second
;;   c<file>            its content on stdout           x<code>  exit
;;   a<file>            append the line `run` to it     t        a line every tenth of a second for ever
;;
;; What cannot be opened ends it with the errno as the exit code (44: not there, 63 and 76: not permitted).
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 32) "run\0a")
  (data (i32.const 40) "tick\0a")
  (data (i32.const 48) "\0a")

  (func $put (param $fd i32) (param $at i32) (param $size i32)
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (local.get $size))
    (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))))

  (func $length (param $at i32) (result i32) (local $end i32)
    (local.set $end (local.get $at))
    (block $done (loop $next
      (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
      (local.set $end (i32.add (local.get $end) (i32.const 1)))
      (br $next)))
    (i32.sub (local.get $end) (local.get $at)))

  ;; The line ends with its newline in one write: its terminating zero becomes one.
  (func $line (param $fd i32) (param $at i32) (local $size i32)
    (local.set $size (call $length (local.get $at)))
    (i32.store8 (i32.add (local.get $at) (local.get $size)) (i32.const 10))
    (call $put (local.get $fd) (local.get $at) (i32.add (local.get $size) (i32.const 1))))

  (func $number (param $at i32) (result i32) (local $value i32)
    (block $done (loop $next
      (br_if $done (i32.eqz (i32.load8_u (local.get $at))))
      (local.set $value (i32.add (i32.mul (local.get $value) (i32.const 10))
                                 (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (local.get $value))

  (func $sleep (param $tenths i32)
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.mul (i64.extend_i32_u (local.get $tenths)) (i64.const 100000000)))
    (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 176))))

  (func $open (param $file i32) (param $create i32) (param $rights i64) (param $flags i32) (result i32) (local $errno i32)
    (local.set $errno (call $path_open
      (i32.sub (i32.load8_u (local.get $file)) (i32.const 45)) (i32.const 1)
      (i32.add (local.get $file) (i32.const 1)) (call $length (i32.add (local.get $file) (i32.const 1)))
      (local.get $create) (local.get $rights) (local.get $rights) (local.get $flags) (i32.const 20)))
    (if (local.get $errno) (then (call $proc_exit (local.get $errno))))
    (i32.load (i32.const 20)))

  (func $copy (param $file i32) (local $fd i32) (local $size i32)
    (local.set $fd (call $open (local.get $file) (i32.const 0) (i64.const 2) (i32.const 0)))
    (block $done (loop $next
      (i32.store (i32.const 8) (i32.const 65536))
      (i32.store (i32.const 12) (i32.const 4096))
      (drop (call $fd_read (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))
      (local.set $size (i32.load (i32.const 16)))
      (br_if $done (i32.eqz (local.get $size)))
      (call $put (i32.const 1) (i32.const 65536) (local.get $size))
      (br $next)))
    (drop (call $fd_close (local.get $fd))))

  (func $append (param $file i32) (local $fd i32)
    (local.set $fd (call $open (local.get $file) (i32.const 1) (i64.const 64) (i32.const 1)))
    (call $put (local.get $fd) (i32.const 32) (i32.const 4))
    (drop (call $fd_close (local.get $fd))))

  (func $do (param $deed i32) (param $object i32)
    (if (i32.eq (local.get $deed) (i32.const 111)) (then (call $line (i32.const 1) (local.get $object))))
    (if (i32.eq (local.get $deed) (i32.const 101)) (then (call $line (i32.const 2) (local.get $object))))
    (if (i32.eq (local.get $deed) (i32.const 99)) (then (call $copy (local.get $object))))
    (if (i32.eq (local.get $deed) (i32.const 97)) (then (call $append (local.get $object))))
    (if (i32.eq (local.get $deed) (i32.const 115)) (then (call $sleep (call $number (local.get $object)))))
    (if (i32.eq (local.get $deed) (i32.const 120)) (then (call $proc_exit (call $number (local.get $object)))))
    (if (i32.eq (local.get $deed) (i32.const 116)) (then
      (loop $ever
        (call $put (i32.const 1) (i32.const 40) (i32.const 5))
        (call $sleep (i32.const 1))
        (br $ever)))))

  (func (export "_start") (local $i i32) (local $argument i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $args_get (i32.const 256) (i32.const 4096)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (i32.load (i32.const 0))))
      (local.set $argument (i32.load (i32.add (i32.const 256) (i32.mul (local.get $i) (i32.const 4)))))
      (call $do (i32.load8_u (local.get $argument)) (i32.add (local.get $argument) (i32.const 1)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))))
