//! The pool for blocking work: a bounded number of threads, or inline for simulation.
