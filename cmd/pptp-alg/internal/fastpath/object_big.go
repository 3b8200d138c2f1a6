//go:build !nofastpath && (mips || mips64 || ppc64 || s390x)

package fastpath

import _ "embed"

//go:embed bpf/fastpath_bpfeb.o
var objectFile []byte

const bigEndian = true
