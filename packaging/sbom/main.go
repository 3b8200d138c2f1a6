// Command sbom prints the software bill of materials of Go programs, as SPDX
// 2.3 in JSON: the modules that the linker noted in them, and the Go release
// whose library and runtime they have. The same programs give the same bytes.
//
//	sbom -version VERSION -time RFC3339 PROGRAM... > FILE
//
// The programs are those of one project for different processors. What any of
// them has is listed.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// document has SPDX's names (https://spdx.github.io/spdx-spec/v2.3/).
type document struct {
	Version       string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []pkg          `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	ID        string     `json:"SPDXID"`
	Name      string     `json:"name"`
	Version   string     `json:"versionInfo"`
	Location  string     `json:"downloadLocation"`
	Analyzed  bool       `json:"filesAnalyzed"`
	Concluded string     `json:"licenseConcluded"`
	Declared  string     `json:"licenseDeclared"`
	Copyright string     `json:"copyrightText"`
	Source    string     `json:"sourceInfo,omitempty"`
	External  []external `json:"externalRefs,omitempty"`
}

type external struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const none = "NOASSERTION"

func main() {
	version := flag.String("version", "", "the programs' `version`")
	made := flag.String("time", "", "`time` of the document, RFC 3339 in UTC")
	flag.Parse()
	if _, err := time.Parse("2006-01-02T15:04:05Z", *made); *version == "" || err != nil || flag.NArg() == 0 {
		fail(errors.New("usage: sbom -version VERSION -time 2006-01-02T15:04:05Z PROGRAM"))
	}
	d, err := describe(*version, *made, flag.Args())
	if err != nil {
		fail(err)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "sbom:", err)
	os.Exit(1)
}

// describe reads the programs and makes the document of their parts.
func describe(version, made string, programs []string) (*document, error) {
	parts := map[string]pkg{}
	var main string
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if main != "" && main != info.Main.Path {
			return nil, fmt.Errorf("%s is of module %s, and others are of %s", path, info.Main.Path, main)
		}
		main = info.Main.Path
		release := strings.TrimPrefix(info.GoVersion, "go")
		parts["stdlib"] = module("stdlib", release, "", "https://go.dev/dl/"+info.GoVersion+".src.tar.gz")
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			parts[m.Path] = module(m.Path, m.Version, m.Sum, "https://proxy.golang.org/"+m.Path+"/@v/"+m.Version+".zip")
		}
	}
	// Another list of parts is another document.
	list, err := json.Marshal(parts)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(list)
	root := module(main, version, "", none)
	root.ID, root.Declared = "SPDXRef-Package", "MIT"
	d := &document{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: main + "-" + version,
		Namespace:     "https://" + main + ".invalid/spdx/" + version + "-" + hex.EncodeToString(digest[:16]),
		Creation:      creation{Created: made, Creators: []string{"Tool: " + main + "-sbom"}},
		Packages:      []pkg{root},
		Relationships: []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", root.ID}},
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{root.ID, "STATIC_LINK", p.ID})
	}
	return d, nil
}

// module is the description of one. sum is go.sum's, of the module's tree; it
// is no digest of a file, for which SPDX has a place.
func module(path, version, sum, location string) pkg {
	p := pkg{
		ID: "SPDXRef-Module-" + identifier(path), Name: path, Version: version, Location: location,
		Concluded: none, Declared: none, Copyright: none,
		External: []external{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")}},
	}
	if sum != "" {
		p.Source = "go.sum: " + sum
	}
	return p
}

// identifier is a name in the letters that SPDX allows: letters, digits, dots
// and hyphens.
func identifier(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.':
			return r
		}
		return '-'
	}, name)
}
