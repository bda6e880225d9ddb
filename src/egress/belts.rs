//! The seat belts: what holds in the kernel when something of ours is missing. Each has a name and can be left out in a test.
//!
//! In: nothing; in a `weakened` build, names from the environment. Out: [`Belts`], which lowering asks. Never: in a released
//! build, anything but all of them.
//!
//! Which fault needs which belt is a table in `docs/belts.md`, and the test `belts` shows every line of it.

/// Which seat belts are built in. All of them, except in the test that shows that each is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belts {
    /// (a) `unreachable default` at the end of every table of a node.
    pub unreachable_routes: bool,
    /// (b) the rule behind all of ours: marked, but no table took it → unreachable.
    pub last_rule: bool,
    /// (c) in `forward`: marked, but leaving by a device that is not ours → dropped.
    pub forward: bool,
    /// (d) our devices open no flows: replies and the own lease only.
    pub from_us: bool,
    /// (e) in the gateway: nothing leaves under another address than the lease.
    pub source: bool,
    /// (f) a packet that conntrack cannot place, of a client or of a gateway hidden behind its node → dropped, not sent without NAT.
    pub invalid: bool,
    /// (g) a client's source is checked against its interface.
    pub spoof: bool,
    /// (h) only nodes, and on them only root, speak the tunnel, to gateways of the plan alone.
    pub guard: bool,
    /// (i) a pod that changes between bound and unbound is held meanwhile.
    pub hold: bool,
    /// (a) again, in a gateway's namespace.
    pub gateway_routes: bool,
    /// (c) again, in a gateway's namespace: what came by our devices leaves by them.
    pub gateway_forward: bool,
    /// (f) again, in a gateway's namespace.
    pub gateway_invalid: bool,
    /// (j) in the gateway: its kernel takes no new flow from outside, so it resets none that it has forgotten.
    pub gateway_input: bool,
    /// (k) in the gateway: replies do not come by the tunnel.
    pub gateway_replies: bool,
    /// (e) again, where a node is the gateway: what it sends for clients leaves by the declared interface and address only.
    pub exit_source: bool,
}

impl Belts {
    /// Everything.
    pub const ALL: Belts = Belts {
        unreachable_routes: true,
        last_rule: true,
        forward: true,
        from_us: true,
        source: true,
        invalid: true,
        spoof: true,
        guard: true,
        hold: true,
        gateway_routes: true,
        gateway_forward: true,
        gateway_invalid: true,
        gateway_input: true,
        gateway_replies: true,
        exit_source: true,
    };

    /// The belts of this build. A release has all of them; a `weakened` build leaves out those named in the environment.
    #[cfg(not(feature = "weakened"))]
    pub fn of_this_build() -> Belts {
        Belts::ALL
    }

    /// The belts of this build: all but those in `EGRET_WITHOUT_BELTS`, separated by commas. For one test; never shipped.
    #[cfg(feature = "weakened")]
    pub fn of_this_build() -> Belts {
        let without = std::env::var("EGRET_WITHOUT_BELTS").unwrap_or_default();
        let has = |belt: &str| !without.split(',').any(|name| name == belt);
        Belts {
            unreachable_routes: has("unreachable-routes"),
            last_rule: has("last-rule"),
            forward: has("forward"),
            from_us: has("from-us"),
            source: has("source"),
            invalid: has("invalid"),
            spoof: has("spoof"),
            guard: has("guard"),
            hold: has("hold"),
            gateway_routes: has("gateway-routes"),
            gateway_forward: has("gateway-forward"),
            gateway_invalid: has("gateway-invalid"),
            gateway_input: has("gateway-input"),
            gateway_replies: has("gateway-replies"),
            exit_source: has("exit-source"),
        }
    }
}
