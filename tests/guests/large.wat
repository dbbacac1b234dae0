;; Wants 64 MiB from the beginning.
(module (memory (export "memory") 1024) (func (export "_start")))
