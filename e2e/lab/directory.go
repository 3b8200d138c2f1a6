package lab

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// directory is the only thing of a lab on disk: the daemons' sockets and
// configuration files. It holds a lock for as long as the process lives, by
// which the next process knows the directories of those that were killed.
type directory struct {
	path string
	lock *os.File
}

const (
	directoryPattern = "pptp-lab-*"
	lockName         = "lock"
)

var sweepOnce sync.Once

func newDirectory() (*directory, error) {
	sweepOnce.Do(sweep)
	path, err := os.MkdirTemp("", directoryPattern)
	if err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(path, lockName))
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = os.RemoveAll(path)
		return nil, err
	}
	return &directory{path, lock}, nil
}

func (d *directory) remove() error {
	err := os.RemoveAll(d.path)
	_ = d.lock.Close()
	return err
}

// sweep removes what killed processes left. A directory without a lock file is
// somebody's who is just about to make it.
func sweep() {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), directoryPattern))
	if err != nil {
		return
	}
	for _, path := range left {
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}
