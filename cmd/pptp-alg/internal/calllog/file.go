package calllog

import (
	"io/fs"
	"os"
)

// file is a sink that appends to a file. When the file was renamed or deleted,
// as logrotate(8) does, the next record begins a new one: nobody has to be told.
type file struct {
	path string
	f    *os.File
	info fs.FileInfo
}

func openFile(path string) (sink, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{path, f, info}, nil
}

func (s *file) write(r *Record) error {
	if now, err := os.Stat(s.path); err != nil || !os.SameFile(now, s.info) {
		s.f.Close()
		again, err := openFile(s.path)
		if err != nil {
			return err
		}
		*s = *again.(*file)
	}
	_, err := s.f.WriteString(r.stamp() + " " + r.message() + "\n")
	return err
}

func (s *file) close() { s.f.Close() }
