// Package numorstring has what Felix's rules need to compile.
package numorstring

import (
	"fmt"
	"strconv"
	"strings"
)

type NumOrStringType int

const (
	NumOrStringNum NumOrStringType = iota
	NumOrStringString
)

type ASNumber uint32

func (n ASNumber) String() string { return strconv.Itoa(int(n)) }

type Protocol struct {
	Type   NumOrStringType
	NumVal uint8
	StrVal string
}

func (p Protocol) String() string { return p.StrVal }

type Port struct {
	MinPort, MaxPort uint16
	PortName         string
}

func (p Port) String() string { return fmt.Sprintf("%d:%d", p.MinPort, p.MaxPort) }

// PortFromString reads one port, or two with a colon between.
func PortFromString(text string) (Port, error) {
	from, to, two := strings.Cut(text, ":")
	if !two {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return Port{}, err
	}
	last, err := strconv.ParseUint(to, 10, 16)
	return Port{MinPort: uint16(first), MaxPort: uint16(last)}, err
}
