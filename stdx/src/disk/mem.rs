//! A disk in memory with a live and a durable image.
