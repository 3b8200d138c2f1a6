package control

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	directoryMode = 0o755
	// socketMode: whoever may connect may ask. Owner and group are the
	// daemon's; an operator can give the directory a group.
	socketMode = 0o660
	lockMode   = 0o600
	maxLock    = 32 // bytes: a process ID
)

// InUseError says that a live daemon has the socket.
type InUseError struct {
	Path string
	PID  int // 0 if unknown
}

func (e *InUseError) Error() string {
	s := fmt.Sprintf("a daemon already runs on %s", e.Path)
	if e.PID != 0 {
		s += fmt.Sprintf(" (process %d)", e.PID)
	}
	return s + "; a router needs one only: stop it first"
}

// A claim is the right to a socket path: the lock beside it.
type claim struct {
	path   string
	lock   *os.File
	socket fs.FileInfo // the socket that was put there
}

// take claims the path and puts a listening socket there.
func take(path string) (_ *claim, _ *net.UnixListener, err error) {
	if err := os.MkdirAll(filepath.Dir(path), directoryMode); err != nil {
		return nil, nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, nil, err
	}
	c := &claim{path: path, lock: lock}
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, nil, fmt.Errorf("%s exists and is not a socket; it was left alone", path)
	default:
		// Its owner does not hold our lock. Ask anyway: it may be no daemon
		// of this kind.
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, nil, &InUseError{Path: path}
		}
	}
	// The socket gets its mode under another name and appears complete; in
	// between nobody could connect with the mode of our umask.
	hidden := filepath.Join(filepath.Dir(path), "."+strconv.Itoa(os.Getpid()))
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false) // it would remove the hidden name
	if err = os.Chmod(hidden, socketMode); err == nil {
		c.socket, err = os.Lstat(hidden)
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		os.Remove(hidden)
		l.Close()
		return nil, nil, err
	}
	return c, l, nil
}

// lockFile locks the file beside the socket.
func lockFile(path string) (*os.File, error) {
	name := path + ".lock"
	for {
		// A link put there by somebody else could lead to any file.
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, lockMode)
		if errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("%s is a link; it was left alone: remove it", name)
		}
		if err != nil {
			return nil, err
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxLock {
			f.Close()
			return nil, fmt.Errorf("%s is not a lock file of this program; it was left alone: remove it (%w)", name, cmp.Or(err, fs.ErrExist))
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				b, _ := io.ReadAll(io.LimitReader(f, maxLock))
				pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
				return nil, &InUseError{Path: path, PID: pid}
			}
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		// Its last owner may have removed the file between our opening and
		// our locking it; then the lock is on nothing.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(name)
		if err1 != nil || err2 != nil || !os.SameFile(mine, there) {
			f.Close()
			continue
		}
		if err := f.Truncate(0); err == nil {
			fmt.Fprintln(f, os.Getpid())
		}
		return f, nil
	}
}

// release removes the socket, if it is still ours, and gives up the lock.
func (c *claim) release() error {
	var err error
	if c.socket != nil {
		if st, e := os.Lstat(c.path); e == nil && os.SameFile(st, c.socket) {
			err = os.Remove(c.path)
		}
	}
	os.Remove(c.lock.Name())
	c.lock.Close()
	return err
}

// isTransient reports an error of accept(2) that will pass.
func isTransient(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
