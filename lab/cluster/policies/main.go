// Network policies of the pods of one node, by the rules of Calico's Felix: its renderer says what stands in iptables, its tables write
// it. What Felix reads of the API server is read here instead, with fewer words: the module of its types is not to be had. Of policies
// that is `podSelector.matchLabels`, `policyTypes`, `ipBlock.cidr` and ports that are numbers: what the tests write.
//
// In: the node's pods and all policies, asked for five times a second. Out: chains `cali-*` in filter, raw and mangle. Each pod must have
// a device of its own, as with the `ptp` plugin; the route to its address tells which.
//
// usage: policies SERVER PKI NODE      (https://…, a folder with ca.crt, admin.crt, admin.key)
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"sync"
	"time"

	"github.com/projectcalico/calico/felix/environment"
	"github.com/projectcalico/calico/felix/ipsets"
	"github.com/projectcalico/calico/felix/iptables"
	"github.com/projectcalico/calico/felix/logutils"
	"github.com/projectcalico/calico/felix/proto"
	"github.com/projectcalico/calico/felix/rules"
)

type meta struct {
	Namespace, Name string
	Labels          map[string]string
}

type pods struct {
	Items []struct {
		Metadata meta
		Spec     struct{ HostNetwork bool }
		Status   struct{ PodIP, Phase string }
	}
}

type way struct {
	From, To []struct{ IPBlock struct{ CIDR string } }
	Ports    []struct {
		Protocol string
		Port     int32
	}
}

type policies struct {
	Items []struct {
		Metadata meta
		Spec     struct {
			PodSelector     struct{ MatchLabels map[string]string }
			PolicyTypes     []string
			Ingress, Egress []way
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "policies:", err)
		os.Exit(1)
	}
	return value
}

func client(folder string) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(folder + "/ca.crt")))
	own := must(tls.LoadX509KeyPair(folder+"/admin.crt", folder+"/admin.key"))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}}
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

func read(client *http.Client, url string, into any) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// devices: by the address that the node routes there.
func devices() map[string]string {
	var routes []struct{ Dst, Dev string }
	said := must(exec.Command("ip", "-j", "-4", "route", "show", "table", "main").Output())
	must(0, json.Unmarshal(said, &routes))
	found := map[string]string{}
	for _, route := range routes {
		found[route.Dst] = route.Dev
	}
	return found
}

func protoRules(ways []way, inbound bool) (all []*proto.Rule) {
	for _, way := range ways {
		rule := proto.Rule{Action: "allow"}
		peers := way.To
		if inbound {
			peers = way.From
		}
		for _, peer := range peers {
			if inbound {
				rule.SrcNet = append(rule.SrcNet, peer.IPBlock.CIDR)
			} else {
				rule.DstNet = append(rule.DstNet, peer.IPBlock.CIDR)
			}
		}
		if len(way.Ports) == 0 {
			all = append(all, &rule)
		}
		for _, port := range way.Ports {
			one := rule
			one.Protocol = &proto.Protocol{NumberOrName: &proto.Protocol_Name{Name: map[bool]string{true: "udp", false: "tcp"}[port.Protocol == "UDP"]}}
			one.DstPorts = []*proto.PortRange{{First: port.Port, Last: port.Port}}
			all = append(all, &one)
		}
	}
	return all
}

func selects(labels, of map[string]string) bool {
	for key, value := range labels {
		if of[key] != value {
			return false
		}
	}
	return true
}

// group: the policies of one direction that select a pod.
func group(direction rules.PolicyDirection, names []string) []*rules.PolicyGroup {
	if len(names) == 0 {
		return nil
	}
	return []*rules.PolicyGroup{{Tier: "default", Direction: direction, PolicyNames: names, Selector: fmt.Sprint(names)}}
}

type engine struct {
	renderer rules.RuleRenderer
	marks    rules.EndpointMarkMapper
	filter   *iptables.Table
	raw      *iptables.Table
	mangle   *iptables.Table
	written  map[string]*iptables.Chain
}

// The marks of a Felix that nobody configured: 0xffff0000.
func begin() *engine {
	config := rules.Config{
		IPSetConfigV4:         ipsets.NewIPVersionConfig(ipsets.IPFamilyV4, rules.IPSetNamePrefix, nil, nil),
		IPSetConfigV6:         ipsets.NewIPVersionConfig(ipsets.IPFamilyV6, rules.IPSetNamePrefix, nil, nil),
		WorkloadIfacePrefixes: []string{"veth"},
		IptablesMarkAccept:    0x10000, IptablesMarkPass: 0x20000, IptablesMarkScratch0: 0x40000, IptablesMarkScratch1: 0x80000,
		IptablesMarkEndpoint: 0xfff00000, IptablesMarkNonCaliEndpoint: 0x100000,
		VXLANPort: 4789, VXLANVNI: 4096,
		EndpointToHostAction: "ACCEPT", IptablesFilterAllowAction: "ACCEPT", IptablesMangleAllowAction: "ACCEPT",
	}
	options := iptables.TableOptions{
		HistoricChainPrefixes: rules.AllHistoricChainNamePrefixes, BackendMode: "nft", InsertMode: "insert",
		RefreshInterval: 10 * time.Second, PostWriteInterval: time.Second, LockTimeout: 5 * time.Second, LockProbeInterval: 50 * time.Millisecond,
		OnStillAlive: func() {}, OpRecorder: logutils.NewSummarizer("policies"),
	}
	detector, lock := environment.NewFeatureDetector(nil), &sync.Mutex{}
	table := func(name string) *iptables.Table {
		return iptables.NewTable(name, 4, rules.RuleHashPrefix, lock, detector, options)
	}
	felix := &engine{
		renderer: rules.NewRenderer(config),
		marks:    rules.NewEndpointMarkMapper(config.IptablesMarkEndpoint, config.IptablesMarkNonCaliEndpoint),
		filter:   table("filter"), raw: table("raw"), mangle: table("mangle"), written: map[string]*iptables.Chain{},
	}
	hook := func(table *iptables.Table, from, to string) {
		table.InsertOrAppendRules(from, []iptables.Rule{{Action: iptables.JumpAction{Target: to}}})
	}
	renderer := felix.renderer
	felix.filter.UpdateChains(renderer.StaticFilterTableChains(4))
	felix.filter.UpdateChains(renderer.HostDispatchChains(nil, "", true))
	felix.filter.UpdateChains(renderer.BlockedCIDRsToIptablesChains(nil, 4))
	felix.filter.AppendRules("FORWARD", renderer.StaticFilterForwardAppendRules())
	hook(felix.filter, "FORWARD", rules.ChainFilterForward)
	hook(felix.filter, "INPUT", rules.ChainFilterInput)
	hook(felix.filter, "OUTPUT", rules.ChainFilterOutput)
	felix.raw.UpdateChains(renderer.StaticRawTableChains(4))
	felix.raw.UpdateChains(renderer.HostDispatchChains(nil, "", false))
	felix.raw.UpdateChain(&iptables.Chain{Name: rules.ChainRpfSkip})
	hook(felix.raw, "PREROUTING", rules.ChainRawPrerouting)
	hook(felix.raw, "OUTPUT", rules.ChainRawOutput)
	felix.mangle.UpdateChains(renderer.StaticMangleTableChains(4))
	felix.mangle.UpdateChains(renderer.FromHostDispatchChains(nil, ""))
	felix.mangle.UpdateChains(renderer.ToHostDispatchChains(nil, ""))
	hook(felix.mangle, "PREROUTING", rules.ChainManglePrerouting)
	hook(felix.mangle, "POSTROUTING", rules.ChainManglePostrouting)
	return felix
}

// wanted: the chains of pods and policies.
func (felix *engine) wanted(pods pods, policies policies) (all []*iptables.Chain) {
	endpoints := map[proto.WorkloadEndpointID]*proto.WorkloadEndpoint{}
	outbound, inbound := map[string][]string{}, map[string][]string{}
	devices := devices()
	for _, policy := range policies.Items {
		id := "knp.default." + policy.Metadata.Namespace + "/" + policy.Metadata.Name
		said := proto.Policy{
			Namespace: policy.Metadata.Namespace, InboundRules: protoRules(policy.Spec.Ingress, true), OutboundRules: protoRules(policy.Spec.Egress, false),
		}
		all = append(all, felix.renderer.PolicyToIptablesChains(&proto.PolicyID{Tier: "default", Name: id}, &said, 4)...)
		for _, pod := range pods.Items {
			if pod.Metadata.Namespace != policy.Metadata.Namespace || !selects(policy.Spec.PodSelector.MatchLabels, pod.Metadata.Labels) {
				continue
			}
			for _, kind := range policy.Spec.PolicyTypes {
				of := map[string]map[string][]string{"Egress": outbound, "Ingress": inbound}[kind]
				of[pod.Metadata.Namespace+"/"+pod.Metadata.Name] = append(of[pod.Metadata.Namespace+"/"+pod.Metadata.Name], id)
			}
		}
	}
	namespaces := map[string]bool{}
	for _, pod := range pods.Items {
		device, routed := devices[pod.Status.PodIP]
		if pod.Spec.HostNetwork || !routed || pod.Status.Phase == "Succeeded" || pod.Status.Phase == "Failed" {
			continue
		}
		name, profile := pod.Metadata.Namespace+"/"+pod.Metadata.Name, "kns."+pod.Metadata.Namespace
		endpoints[proto.WorkloadEndpointID{OrchestratorId: "k8s", WorkloadId: name, EndpointId: "eth0"}] = &proto.WorkloadEndpoint{Name: device}
		in, out := group(rules.PolicyDirectionInbound, inbound[name]), group(rules.PolicyDirectionOutbound, outbound[name])
		for _, group := range append(in, out...) {
			all = append(all, felix.renderer.PolicyGroupToIptablesChains(group)...)
		}
		all = append(all, felix.renderer.WorkloadEndpointToIptablesChains(device, felix.marks, true, in, out, []string{profile})...)
		if !namespaces[profile] {
			namespaces[profile] = true
			allow := []*proto.Rule{{Action: "allow"}}
			in, out := felix.renderer.ProfileToIptablesChains(&proto.ProfileID{Name: profile}, &proto.Profile{InboundRules: allow, OutboundRules: allow}, 4)
			all = append(all, in, out)
		}
	}
	return append(all, felix.renderer.WorkloadDispatchChains(endpoints)...)
}

func (felix *engine) write(wanted []*iptables.Chain) {
	chains := map[string]*iptables.Chain{}
	for _, chain := range wanted {
		chains[chain.Name] = chain
		if !reflect.DeepEqual(felix.written[chain.Name], chain) {
			felix.filter.UpdateChain(chain)
		}
	}
	for name := range felix.written {
		if chains[name] == nil {
			felix.filter.RemoveChainByName(name)
		}
	}
	felix.written = chains
	for _, table := range []*iptables.Table{felix.raw, felix.mangle, felix.filter} {
		table.Apply()
	}
}

func main() {
	if len(os.Args) != 4 {
		must(0, fmt.Errorf("usage: policies SERVER PKI NODE"))
	}
	server, client, felix := os.Args[1], client(os.Args[2]), begin()
	for ; ; time.Sleep(200 * time.Millisecond) {
		var pods pods
		var policies policies
		err := read(client, server+"/api/v1/pods?fieldSelector=spec.nodeName="+os.Args[3], &pods)
		if err == nil {
			err = read(client, server+"/apis/networking.k8s.io/v1/networkpolicies", &policies)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "policies:", err)
			continue
		}
		felix.write(felix.wanted(pods, policies))
	}
}
