from .allocator import keep_large_blocks

keep_large_blocks()
