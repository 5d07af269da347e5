# SPDX-License-Identifier: Apache-2.0
"""`org.haoperator1.Heartbeat`: what the operator publishes and hears."""

from collections.abc import Callable
from xml.etree.ElementTree import Element, SubElement

from dbus_next.constants import PropertyAccess
from dbus_next.errors import DBusError
from dbus_next.introspection import Interface, Property
from dbus_next.service import ServiceInterface, dbus_property, method, signal

BUS_NAME = "org.haoperator1.Heartbeat"
OBJECT_PATH = "/org/haoperator1/heartbeat"


class _Unannounced(Property):
    def to_xml(self) -> Element:
        element = super().to_xml()
        name = "org.freedesktop.DBus.Property.EmitsChangedSignal"
        SubElement(element, "annotation", {"name": name, "value": "false"})
        return element


class HeartbeatInterface(ServiceInterface):
    """A mirror of the daemon's levels; `announce` tells the bus what changed.

    `publish` raises ValueError for a status that does not fit into a packet. `evidence` is
    asked at each reading: ages are no level.
    """

    def __init__(self, publish: Callable[[str, float], None], evidence: Callable[[], str]) -> None:
        super().__init__("org.haoperator1.Heartbeat")
        self._publish = publish
        self._evidence = evidence
        self._levels: dict[str, object] = {
            "PeerReachable": False,
            "PeerIsSilent": False,
            "PeerStatus": "",
            "Links": {},
            "Witness": "none",
            "VipProbe": "none",
        }

    def announce(self, **levels: object) -> None:
        """Store the levels; PropertiesChanged carries those that differ."""
        changed = {name: value for name, value in levels.items() if self._levels[name] != value}
        self._levels.update(changed)
        if changed:
            self.emit_properties_changed(changed)

    @method()
    def Publish(self, status: "s", lifetime_usec: "t") -> None:
        try:
            self._publish(status, lifetime_usec / 1e6)
        except ValueError as err:
            raise DBusError("org.haoperator1.Error.TooLong", str(err)) from err

    @dbus_property(access=PropertyAccess.READ)
    def PeerReachable(self) -> "b":
        return self._levels["PeerReachable"]

    @dbus_property(access=PropertyAccess.READ)
    def PeerIsSilent(self) -> "b":
        return self._levels["PeerIsSilent"]

    @dbus_property(access=PropertyAccess.READ)
    def PeerStatus(self) -> "s":
        return self._levels["PeerStatus"]

    @dbus_property(access=PropertyAccess.READ)
    def Links(self) -> "a{sb}":
        return self._levels["Links"]

    @dbus_property(access=PropertyAccess.READ)
    def Witness(self) -> "s":
        return self._levels["Witness"]

    @dbus_property(access=PropertyAccess.READ)
    def VipProbe(self) -> "s":
        return self._levels["VipProbe"]

    @dbus_property(access=PropertyAccess.READ)
    def Evidence(self) -> "s":
        return self._evidence()

    def introspect(self) -> Interface:
        """dbus-next knows no annotations: `Evidence` never changes with a signal."""
        interface = super().introspect()
        unannounced = _Unannounced("Evidence", "s", PropertyAccess.READ)
        interface.properties = [
            unannounced if prop.name == "Evidence" else prop for prop in interface.properties
        ]
        return interface

    @signal()
    def PeerHeard(self, status: "s") -> "s":
        return status

    @signal()
    def PeerSilent(self) -> None:
        return None
