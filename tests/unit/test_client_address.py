import pytest

from service.http.gates.client_address import ClientAddresses


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


class TestWithoutProxies:
    def test_the_peer_is_the_client(self) -> None:
        assert ClientAddresses().client_of("192.0.2.7", []) == "192.0.2.7"

    def test_what_a_client_says_of_itself_is_ignored(self) -> None:
        assert ClientAddresses().client_of("192.0.2.7", forwarded("198.51.100.1")) == "192.0.2.7"

    def test_an_ipv6_client_is_its_network(self) -> None:
        clients = ClientAddresses()
        assert (
            clients.client_of("2001:db8:1:2:3::4", []) == clients.client_of("2001:db8:1:2:ffff::1", []) == "2001:db8:1:2::/64"
        )

    def test_an_ipv4_address_in_an_ipv6_socket_is_itself(self) -> None:
        assert ClientAddresses().client_of("::ffff:192.0.2.7", []) == "192.0.2.7"


class TestBehindProxies:
    clients = ClientAddresses("10.0.0.0/8, 2001:db8::/32")

    def test_the_last_address_that_is_no_proxy_counts(self) -> None:
        headers = forwarded("6.6.6.6, 192.0.2.7, 10.0.0.9")
        assert self.clients.client_of("10.1.2.3", headers) == "192.0.2.7"

    def test_several_headers_are_one_list(self) -> None:
        assert self.clients.client_of("10.1.2.3", forwarded("6.6.6.6", "192.0.2.7")) == "192.0.2.7"

    @pytest.mark.parametrize("value", ["", ",", "10.0.0.4, 10.0.0.5"])
    def test_a_proxy_that_names_nobody_is_the_client(self, value: str) -> None:
        assert self.clients.client_of("10.1.2.3", forwarded(value)) == "10.1.2.3"

    def test_a_proxy_is_known_through_an_ipv6_socket_too(self) -> None:
        assert self.clients.is_trusted("::ffff:10.1.2.3")
        assert not self.clients.is_trusted("::ffff:192.0.2.1")
        assert self.clients.client_of("::ffff:10.1.2.3", forwarded("192.0.2.7, ::ffff:10.0.0.9")) == "192.0.2.7"

    @pytest.mark.parametrize(
        ("value", "client"),
        [
            ("192.0.2.7:51234", "192.0.2.7"),
            ("192.0.2.7:51234, 10.0.0.9:80", "192.0.2.7"),
            ("[2001:db9:1:2::3]:99", "2001:db9:1:2::/64"),
            ("[2001:db9:1:2::3]", "2001:db9:1:2::/64"),
        ],
    )
    def test_ports_do_not_tell_clients_apart(self, value: str, client: str) -> None:
        assert self.clients.client_of("10.1.2.3", forwarded(value)) == client

    def test_others_are_not_believed(self) -> None:
        assert self.clients.client_of("192.0.2.1", forwarded("10.0.0.1")) == "192.0.2.1"

    def test_nonsense_is_one_client_of_bounded_length(self) -> None:
        assert len(self.clients.client_of("10.0.0.1", forwarded("x" * 5000))) == 64


def test_a_wrong_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/33"):
        ClientAddresses("10.0.0.0/33")
