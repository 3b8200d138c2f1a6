package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	magic   = "pptp-alg"
	version = 1

	frameHeader = 4 + 4
	opPut       = 1
	opDelete    = 2

	// changeSize is how many bytes a change has, by and large.
	changeSize = 64
	// mostAtOnce is for how many changes there is room from the beginning.
	mostAtOnce = 1 << 17

	// maxFile bounds what Load reads. 100,000 calls have about 30 MB.
	maxFile = 512 << 20
	maxKey  = 1<<8 - 1
	maxLen  = 1<<16 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrForeign says that the file is not a journal, or not this user's: it is neither read nor replaced.
var ErrForeign = errors.New("not a state file of this program's; remove it, or name another")

// A Report says what Load found.
type Report struct {
	Records int    // values given to the caller
	Torn    int64  // bytes at the end that do not count
	Ignored string // why the whole file does not count; empty if it does
	Damaged bool   // it was not left like this by this program
}

// Identity names what a journal is about: this boot of this machine, and the network namespace of the
// process.
func Identity() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(boot)) + " " + ns, nil
}

// Load reads the journal at path, and calls each with the last value of every key that was not deleted,
// in the order in which the keys first came. Key and value are the callee's to keep. That there is no file
// is no error. ErrForeign, wrapped: the file is somebody else's, and may not be overwritten.
func Load(path, identity string, each func(key, value []byte)) (Report, error) {
	b, mode, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("read state: %w", err)
	}
	r, err := Parse(b, identity, each)
	if err != nil && likely(path, mode) {
		return Report{Ignored: "it does not begin like one", Damaged: true}, nil
	}
	if err != nil {
		return r, fmt.Errorf("read state: %s: %w", path, err)
	}
	return r, nil
}

// likely reports whether a file whose beginning is not a journal's was one nevertheless: its name and its mode
// are. Anything else may be a file that a setting names by mistake.
func likely(path string, mode fs.FileMode) bool {
	return strings.HasSuffix(path, ".state") && mode == fileMode
}

// KeepAside gives a damaged journal a second name, under which it stays when another takes its place, and returns
// that. It is in the place of the one that was kept before.
func KeepAside(path string) (string, error) {
	aside := path + ".damaged"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("keep the damaged state: %w", err)
	}
	if err := os.Link(path, aside); err != nil {
		return "", fmt.Errorf("keep the damaged state: %w", err)
	}
	return aside, nil
}

// read reads a regular file of ours, and returns its permissions.
func read(path string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, fmt.Errorf("%s: a symbolic link: %w", path, ErrForeign)
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, 0, fmt.Errorf("%s: not a file: %w", path, ErrForeign)
	case int(st.Uid) != os.Geteuid(), st.Mode&0o022 != 0:
		return nil, 0, fmt.Errorf("%s: other users can write to it: %w", path, ErrForeign)
	case st.Size > maxFile:
		return nil, 0, fmt.Errorf("%s: larger than %d bytes: %w", path, maxFile, ErrForeign)
	}
	b := make([]byte, st.Size)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return b[:n], fs.FileMode(st.Mode & 0o7777), nil
}

// Parse is Load for the bytes of a journal.
func Parse(b []byte, identity string, each func(key, value []byte)) (Report, error) {
	if len(b) < len(magic) && strings.HasPrefix(magic, string(b)) {
		return Report{Torn: int64(len(b)), Ignored: "it has no header", Damaged: len(b) > 0}, nil
	}
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return Report{}, ErrForeign
	}
	rest, ignored, damaged := header(b, identity)
	if ignored != "" {
		return Report{Ignored: ignored, Damaged: damaged}, nil
	}
	type record struct{ key, value []byte }
	about := min(len(rest)/changeSize, mostAtOnce) // most of a journal may be of what is over
	records := make([]record, 0, about)
	index := make(map[string]int, about)
	for {
		changes, more, ok := frame(rest)
		if !ok {
			break
		}
		rest = more
		for len(changes) > 0 {
			key, value, n := change(changes)
			deleted := changes[0] == opDelete
			changes = changes[n:]
			switch i, known := index[string(key)]; {
			case deleted && known:
				records[i] = record{}
				delete(index, string(key))
			case deleted:
			case known:
				records[i].value = value
			default:
				index[string(key)] = len(records)
				records = append(records, record{key, value})
			}
		}
	}
	for _, r := range records {
		if r.key != nil {
			each(r.key, r.value)
		}
	}
	return Report{Records: len(index), Torn: int64(len(rest)), Damaged: len(rest) > 0}, nil
}

// header takes the header off, or says why the rest is of no use, and whether it was ever right.
func header(b []byte, identity string) (rest []byte, ignored string, damaged bool) {
	const fixed = len(magic) + 1 + 2
	if len(b) < fixed {
		return nil, "its header is cut off", true
	}
	if v := b[len(magic)]; v != version {
		return nil, fmt.Sprintf("it has version %d, this program writes %d", v, version), false
	}
	n := fixed + int(binary.BigEndian.Uint16(b[len(magic)+1:]))
	if len(b) < n+4 || binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return nil, "its header is damaged", true
	}
	if string(b[fixed:n]) != identity {
		return nil, "it is of another boot or another network namespace", false
	}
	return b[n+4:], "", false
}

// frame takes the first frame off. It fails when that is not whole, or not well formed.
func frame(b []byte) (changes, rest []byte, ok bool) {
	if len(b) < frameHeader {
		return nil, b, false
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if n > uint64(len(b)-frameHeader) {
		return nil, b, false
	}
	changes = b[frameHeader : frameHeader+n]
	if crc32.Checksum(changes, castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return nil, b, false
	}
	for c := changes; len(c) > 0; {
		_, _, n := change(c)
		if n == 0 {
			return nil, b, false
		}
		c = c[n:]
	}
	return changes, b[frameHeader+n:], true
}

// change reads the first change, and returns its length; 0: it is none.
func change(b []byte) (key, value []byte, n int) {
	if len(b) < 2 {
		return nil, nil, 0
	}
	k := int(b[1])
	switch {
	case b[0] == opDelete && len(b) >= 2+k:
		return b[2 : 2+k : 2+k], nil, 2 + k
	case b[0] == opPut && len(b) >= 4:
		v := int(binary.BigEndian.Uint16(b[2:]))
		if n = 4 + k + v; len(b) >= n {
			return b[4 : 4+k : 4+k], b[4+k : n : n], n
		}
	}
	return nil, nil, 0
}
