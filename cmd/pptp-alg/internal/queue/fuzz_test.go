package queue

import (
	"bytes"
	"testing"
)

// The kernel's tables in /proc: lines of any kind.
func FuzzTables(f *testing.F) {
	f.Add([]byte(" 1723  12345     0 2 65531     0     0        7  1\n"))
	f.Add([]byte("sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n0000000000000000 12 12345 00000000 0 0 0 2 0 778899\n"))
	f.Add([]byte("99999 1 2 3 4 5 6 7 8\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseKernels(bytes.NewReader(b))
		if err != nil && list != nil {
			t.Errorf("a list of %d besides the error %v", len(list), err)
		}
		if len(list) > bytes.Count(b, []byte("\n"))+1 {
			t.Errorf("%d queues in %q", len(list), b)
		}
		for _, k := range list {
			if inode, ok := inodeOf(bytes.NewReader(b), k.PortID); ok && !bytes.Contains(b, []byte(inode)) {
				t.Errorf("inode %q out of %q", inode, b)
			}
		}
	})
}
