"""The real components, placed as the supervisor places them: what specs render from."""

from appliance.component import Placed, RenderedFile, Site
from appliance.config import Config
from appliance.supervisor.place import place
from appliance.supervisor.registry import specs

DEFAULT = Config()


def site_of(config: Config, *, resolvers: tuple[str, ...] = ()) -> Site:
    """Return the site of a machine with this configuration, before any keys were made."""
    return Site(config=config, placed=place(config, specs(config)), access=(), resolvers=resolvers)


def rendered(
    component: str, config: Config = DEFAULT, *, resolvers: tuple[str, ...] = ()
) -> dict[str, RenderedFile]:
    """Return the files of the first instance of a component, by name."""
    [spec] = [spec for spec in specs(config) if spec.name == component]
    site = site_of(config, resolvers=resolvers)
    placed: Placed = site.of(component)[0]
    return {file.name: file for file in spec.render(site, placed)}
