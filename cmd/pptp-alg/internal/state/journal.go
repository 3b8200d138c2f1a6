package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	fileMode = 0o600

	// frameSize is how much Rewrite puts into one frame.
	frameSize = 64 << 10
	// slack is how much a small journal may grow before it is written anew.
	slack = 256 << 10
)

// A Journal is written to. It begins with Rewrite.
type Journal struct {
	path, identity string
	create         func(name string) (io.WriteCloser, error)

	file    io.WriteCloser // nil: there is none, or writing it failed
	pending []byte         // the next frame
	size    int64          // of the file
	whole   int64          // its size when it was written anew
}

// New returns the journal at path, which is not touched before Rewrite.
func New(path, identity string) *Journal {
	j := &Journal{path: path, identity: identity, create: create}
	j.clear()
	return j
}

func create(name string) (io.WriteCloser, error) {
	// Left behind by a process that was killed at this.
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, fileMode)
}

// Put notes a key's new value. Flush writes it.
func (j *Journal) Put(key, value []byte) {
	if len(key) > maxKey || len(value) > maxLen {
		panic(fmt.Sprintf("state: a key of %d bytes with a value of %d", len(key), len(value)))
	}
	b := append(j.pending, opPut, byte(len(key)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	j.pending = append(append(b, key...), value...)
}

// Delete notes that a key has no value any more.
func (j *Journal) Delete(key []byte) {
	j.pending = append(append(j.pending, opDelete, byte(len(key))), key...)
}

// Flush writes what was noted, in one frame. When that fails, the file is removed: it would say what is no
// longer so. Nothing is written then until Rewrite succeeds.
func (j *Journal) Flush() error {
	if len(j.pending) == frameHeader {
		return nil
	}
	if j.file == nil {
		j.clear()
		return nil
	}
	if err := j.write(); err != nil {
		j.Close()
		_ = os.Remove(j.path)
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// write writes the pending frame.
func (j *Journal) write() error {
	b := j.pending
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameHeader))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[frameHeader:], castagnoli))
	n, err := j.file.Write(b)
	j.size += int64(n)
	j.clear()
	return err
}

func (j *Journal) clear() {
	if cap(j.pending) > 2*frameSize {
		j.pending = nil
	}
	j.pending = append(j.pending[:0], make([]byte, frameHeader)...)
}

// Writing reports whether there is a file that is being written.
func (j *Journal) Writing() bool { return j.file != nil }

// Overgrown reports whether most of the file is what was replaced or deleted since.
func (j *Journal) Overgrown() bool { return j.file != nil && j.size > 2*j.whole+slack }

// Rewrite puts a new file in the place of the old one, with what all puts into it and nothing else. Until
// the new one is complete the old one stays; when this fails, there is none.
func (j *Journal) Rewrite(all func(put func(key, value []byte))) error {
	j.Close()
	hidden := j.path + ".new"
	err := j.rewrite(hidden, all)
	if err != nil {
		j.Close()
		_ = os.Remove(hidden)
		_ = os.Remove(j.path)
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (j *Journal) rewrite(hidden string, all func(put func(key, value []byte))) (err error) {
	if j.file, err = j.create(hidden); err != nil {
		return err
	}
	h := append([]byte(magic), version)
	h = binary.BigEndian.AppendUint16(h, uint16(len(j.identity)))
	h = append(h, j.identity...)
	h = binary.BigEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	n, err := j.file.Write(h)
	if err != nil {
		return err
	}
	j.size = int64(n)
	all(func(key, value []byte) {
		j.Put(key, value)
		if err == nil && len(j.pending) >= frameSize {
			err = j.write()
		}
	})
	if err == nil {
		err = j.write()
	}
	if err == nil {
		err = os.Rename(hidden, j.path)
	}
	j.whole = j.size
	return err
}

// Close closes the file, which stays. What was not flushed is lost.
func (j *Journal) Close() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
	j.clear()
}
