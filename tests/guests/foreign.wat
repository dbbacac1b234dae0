;; Imports what no node provides.
(module
  (import "wapc" "__guest_request" (func (param i32 i32)))
  (import "env" "magic" (func))
  (memory (export "memory") 1)
  (func (export "_start")))
