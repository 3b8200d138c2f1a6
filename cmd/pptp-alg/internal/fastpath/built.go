//go:build !nofastpath

package fastpath

// Built says whether the program has a fast path.
const Built = true
