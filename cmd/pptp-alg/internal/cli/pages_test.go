package cli

import (
	"flag"
	"fmt"
	"os"
	programs "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The manual pages and the completions of shells are made from the commands and
// from the reference configuration, so that they can't say anything else.
// `go test -update` writes them.
func TestPages(t *testing.T) {
	reference, err := os.ReadFile("../config/reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	for path, page := range map[string]string{
		"docs/man/pptp-alg.8":                programPage(),
		"docs/man/pptp-alg.toml.5":           configPage(string(reference)),
		"packaging/completion/pptp-alg.bash": bashCompletion(),
		"packaging/completion/_pptp-alg":     zshCompletion(),
		"packaging/completion/pptp-alg.fish": fishCompletion(),
	} {
		file := filepath.Join("../../../..", path)
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if stored, err := os.ReadFile(file); err != nil || string(stored) != page {
			t.Errorf("%s is not what the commands say: run go test ./cmd/pptp-alg/internal/cli -update (%v)", path, err)
		}
		check(t, file)
	}
}

// check has the program for whom a page is meant look at it, where there is one.
func check(t *testing.T, file string) {
	t.Helper()
	var command []string
	switch base := filepath.Base(file); {
	case strings.HasSuffix(base, ".8"), strings.HasSuffix(base, ".5"):
		command = []string{"mandoc", "-Tlint", "-Wwarning", file}
	case strings.HasSuffix(base, ".bash"):
		command = []string{"bash", "-n", file}
	case strings.HasSuffix(base, ".fish"):
		command = []string{"fish", "--no-execute", file}
	default:
		command = []string{"zsh", "-n", file}
	}
	if _, err := programs.LookPath(command[0]); err != nil {
		t.Logf("%s is not here to check %s", command[0], file)
		return
	}
	if out, err := programs.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// option is a flag as people write it.
type option struct{ name, value, text string }

func (c command) options() []option {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.flags(fs)
	var list []option
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		list = append(list, option{"--" + f.Name, value, text})
	})
	return list
}

// words are the values that a flag can have, from its text: "FORMAT of log lines:
// text or json (default text)".
var wordList = regexp.MustCompile(`: ((?:[a-z-]+, )*[a-z-]+ or [a-z-]+)`)

func (o option) words() []string {
	m := wordList.FindStringSubmatch(o.text)
	if m == nil {
		return nil
	}
	return regexp.MustCompile(`, | or `).Split(m[1], -1)
}

// file reports whether the value of a flag is a path.
func (o option) file() bool { return slices.Contains([]string{"FILE", "PATH", "DIR", "OUT"}, o.value) }

// Manual pages, in mdoc(7).

// sentence is where one ends and another begins: on a new line, as mdoc wants it.
var sentence = regexp.MustCompile(`([.:]) +([A-Z])`)

// roff protects what roff would take for a request, an escape or a quote.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `"`, `\(dq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// prose writes paragraphs; what is indented stays as it is.
func prose(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".Pp\n")
		}
		literal := false
		for _, line := range strings.Split(paragraph, "\n") {
			if indented := strings.HasPrefix(line, " "); indented != literal {
				literal = indented
				b.WriteString(map[bool]string{true: ".Bd -literal -offset indent -compact\n", false: ".Ed\n"}[literal])
			}
			if !literal {
				line = sentence.ReplaceAllString(line, "$1\n$2")
			}
			b.WriteString(roff(strings.TrimPrefix(line, "  ")) + "\n")
		}
		if literal {
			b.WriteString(".Ed\n")
		}
	}
}

func programPage() string {
	var b strings.Builder
	b.WriteString(`.\" Made from the commands' help; see cmd/pptp-alg/internal/cli/pages_test.go.
.Dd $Mdocdate$
.Dt PPTP-ALG 8
.Os
.Sh NAME
.Nm pptp-alg
.Nd PPTP passthrough for NAT routers
.Sh SYNOPSIS
.Nm
.Ar command
.Op Ar flags
.Sh DESCRIPTION
.Nm
lets any number of PPTP clients behind a NAT router reach their servers from one public address.
It reads the control connections (TCP port 1723) that pass through the router, makes the Call IDs in them
unique, and has the kernel's connection tracking translate the GRE packets of the calls.
.Pp
The commands are:
.Bl -tag -width Ds
`)
	for _, c := range commands() {
		fmt.Fprintf(&b, ".It Nm Cm %s\n%s.\n", strings.TrimSpace(c.name+" "+roff(c.usage)), roff(strings.ToUpper(c.summary[:1])+c.summary[1:]))
		b.WriteString(".Pp\n")
		prose(&b, c.help)
		if options := c.options(); len(options) > 0 {
			b.WriteString(".Pp\n.Bl -tag -width Ds -compact\n")
			for _, o := range options {
				fmt.Fprintf(&b, ".It Fl \\-%s", strings.TrimPrefix(o.name, "--"))
				if o.value != "" {
					fmt.Fprintf(&b, " Ar %s", o.value)
				}
				fmt.Fprintf(&b, "\n%s\n", roff(o.text))
			}
			b.WriteString(".El\n")
		}
	}
	b.WriteString(`.El
.Sh FILES
.Bl -tag -width Ds -compact
.It Pa /etc/pptp-alg.toml
settings, see
.Xr pptp-alg.toml 5
.It Pa /run/pptp-alg/control.sock
where the commands reach the daemon
.El
.Sh EXIT STATUS
.Bl -tag -width Ds -compact
.It 0
done
.It 1
failure
.It 2
wrong command line
.It 3
no daemon answers
.El
.Sh SEE ALSO
.Xr pptp-alg.toml 5 ,
.Xr conntrack 8 ,
.Xr nft 8
.Sh STANDARDS
RFC 2637, Point-to-Point Tunneling Protocol.
.Sh SECURITY CONSIDERATIONS
The encryption of PPTP is broken.
Where there is a choice, use WireGuard or IPsec.
`)
	return b.String()
}

// aligned is a line of a comment that explains one value of a key.
var aligned = regexp.MustCompile(`^"[a-z]+"  `)

// configPage turns the reference configuration into a list of keys: a comment
// describes the keys below it.
func configPage(reference string) string {
	var b strings.Builder
	b.WriteString(`.\" Made from reference.toml; see cmd/pptp-alg/internal/cli/pages_test.go.
.Dd $Mdocdate$
.Dt PPTP-ALG.TOML 5
.Os
.Sh NAME
.Nm pptp-alg.toml
.Nd settings of pptp-alg
.Sh DESCRIPTION
`)
	blocks := strings.Split(strings.TrimSpace(reference), "\n\n")
	open := false
	describe := func(comment []string) {
		for _, l := range comment {
			if aligned.MatchString(l) { // a value and what it means
				b.WriteString(".br\n")
			}
			b.WriteString(roff(sentence.ReplaceAllString(l, "$1\n$2")) + "\n")
		}
	}
	list := func(want bool) {
		if want != open {
			b.WriteString(map[bool]string{true: ".Bl -tag -width Ds\n", false: ".El\n"}[want])
			open = want
		}
	}
	table := ""
	for _, block := range blocks {
		var comment []string
		described := false
		for _, line := range strings.Split(block, "\n") {
			switch {
			case strings.HasPrefix(line, "#"):
				comment = append(comment, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
				continue
			case strings.HasPrefix(line, "["):
				list(false)
				table = strings.Trim(line, "[]")
				fmt.Fprintf(&b, ".Ss \\&[%s]\n", table)
				if len(comment) > 0 {
					b.WriteString(roff(strings.Join(comment, "\n")) + "\n")
					comment = nil
				}
				continue
			}
			list(true)
			setting, remark, _ := strings.Cut(line, "  # ")
			fmt.Fprintf(&b, ".It Li %s\n", roff(strings.TrimSpace(setting)))
			if remark != "" {
				b.WriteString(roff(strings.ToUpper(remark[:1])+remark[1:]) + ".\n")
			}
			if !described && len(comment) > 0 {
				described = true
				describe(comment)
			}
		}
		if len(comment) > 0 && !described {
			list(false)
			describe(comment)
		}
	}
	list(false)
	b.WriteString(".Sh SEE ALSO\n.Xr pptp-alg 8\n")
	return b.String()
}

// Completions.

func bashCompletion() string {
	var names []string
	var flags, values strings.Builder
	for _, c := range commands() {
		names = append(names, c.name)
		var own []string
		for _, o := range c.options() {
			own = append(own, o.name)
			switch words := o.words(); {
			case words != nil:
				fmt.Fprintf(&values, "    \"%s %s\") COMPREPLY=($(compgen -W \"%s\" -- \"$word\")); return ;;\n", c.name, o.name, strings.Join(words, " "))
			case o.file():
				fmt.Fprintf(&values, "    \"%s %s\") COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n", c.name, o.name)
			case o.value != "":
				fmt.Fprintf(&values, "    \"%s %s\") return ;;\n", c.name, o.name)
			}
		}
		fmt.Fprintf(&flags, "    %s) flags=\"%s --help\" ;;\n", c.name, strings.Join(own, " "))
	}
	return fmt.Sprintf(`# Completion of pptp-alg for bash; made from its commands.
# shellcheck disable=SC2207
_pptp_alg() {
  local word=$2 flags=
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "%s help" -- "$word"))
    return
  fi
  case "${COMP_WORDS[1]} $3" in
%s  esac
  case "${COMP_WORDS[1]}" in
%s  esac
  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$word")); else COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -o filenames -F _pptp_alg pptp-alg
`, strings.Join(names, " "), values.String(), flags.String())
}

// plain makes a text fit into single quotes.
func plain(s string) string {
	return strings.NewReplacer("'", "’", "\n", " ", "[", "(", "]", ")", ":", "").Replace(s)
}

func zshCompletion() string {
	var b strings.Builder
	b.WriteString("#compdef pptp-alg\n# Completion of pptp-alg for zsh; made from its commands.\n_pptp-alg() {\n  local -a commands=(\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "    '%s:%s'\n", c.name, plain(c.summary))
	}
	b.WriteString("  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n  local command=$words[2]\n  shift words; (( CURRENT-- ))\n  case $command in\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "    %s) _arguments", c.name)
		for _, o := range c.options() {
			value := ""
			switch words := o.words(); {
			case words != nil:
				value = fmt.Sprintf(":%s:(%s)", o.value, strings.Join(words, " "))
			case o.file():
				value = fmt.Sprintf(":%s:_files", o.value)
			case o.value != "":
				value = fmt.Sprintf(":%s:", o.value)
			}
			fmt.Fprintf(&b, " \\\n      '%s[%s]%s'", o.name, plain(o.text), value)
		}
		b.WriteString(" '*:file:_files' ;;\n")
	}
	b.WriteString("  esac\n}\n_pptp-alg \"$@\"\n")
	return b.String()
}

func fishCompletion() string {
	var b strings.Builder
	b.WriteString("# Completion of pptp-alg for fish; made from its commands.\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "complete -c pptp-alg -n __fish_use_subcommand -f -a %s -d '%s'\n", c.name, plain(c.summary))
	}
	for _, c := range commands() {
		for _, o := range c.options() {
			value := ""
			switch words := o.words(); {
			case words != nil:
				value = fmt.Sprintf(" -x -a '%s'", strings.Join(words, " "))
			case o.file():
				value = " -r"
			case o.value != "":
				value = " -x"
			}
			fmt.Fprintf(&b, "complete -c pptp-alg -n '__fish_seen_subcommand_from %s' -l %s%s -d '%s'\n", c.name, strings.TrimPrefix(o.name, "--"), value, plain(o.text))
		}
	}
	return b.String()
}
