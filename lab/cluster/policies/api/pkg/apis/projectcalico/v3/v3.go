// Package v3 has the names that Felix's rules need to compile; nothing is ever read into them here.
package v3

const GroupVersionCurrent = "projectcalico.org/v3"

type (
	PolicyPerformanceHint string
	HTTPPath              struct{}
	Profile               struct {
		Spec struct{ LabelsToApply map[string]string }
	}
	BGPConfiguration             struct{}
	BGPFilter                    struct{}
	BGPPeer                      struct{}
	CalicoNodeStatus             struct{}
	ClusterInformation           struct{}
	FelixConfiguration           struct{}
	GlobalNetworkPolicy          struct{}
	GlobalNetworkSet             struct{}
	HostEndpoint                 struct{}
	IPPool                       struct{}
	IPReservation                struct{}
	KubeControllersConfiguration struct{}
	NetworkPolicy                struct{}
	NetworkSet                   struct{}
)

const (
	KindBGPConfiguration             = "BGPConfiguration"
	KindBGPFilter                    = "BGPFilter"
	KindBGPPeer                      = "BGPPeer"
	KindCalicoNodeStatus             = "CalicoNodeStatus"
	KindClusterInformation           = "ClusterInformation"
	KindFelixConfiguration           = "FelixConfiguration"
	KindGlobalNetworkPolicy          = "GlobalNetworkPolicy"
	KindGlobalNetworkSet             = "GlobalNetworkSet"
	KindHostEndpoint                 = "HostEndpoint"
	KindIPPool                       = "IPPool"
	KindIPReservation                = "IPReservation"
	KindKubeControllersConfiguration = "KubeControllersConfiguration"
	KindNetworkPolicy                = "NetworkPolicy"
	KindNetworkSet                   = "NetworkSet"
	KindProfile                      = "Profile"
)
