"Package metadata, read from settings.ini so that it stands in one place."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
STATUSES = ['Planning', 'Pre-Alpha', 'Alpha', 'Beta', 'Production/Stable', 'Mature', 'Inactive']


def words(key): return cfg.get(key, '').split()


extras = {k[:-len('_requirements')]: words(k) for k in cfg
          if k.endswith('_requirements') and k != 'requirements'}
minor = int(cfg['min_python'].split('.')[1])
readme = here/'README.md'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    url=cfg['git_url'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    license_files=['LICENSE.txt'],
    keywords=cfg['keywords'],
    classifiers=[f"Development Status :: {cfg['status']} - {STATUSES[int(cfg['status'])-1]}",
                 f"Intended Audience :: {cfg['audience']}", f"Natural Language :: {cfg['language']}"]
                + [f'Programming Language :: Python :: 3.{v}' for v in range(minor, 14)],
    packages=find_packages(include=[cfg['lib_name'], cfg['lib_name']+'.*']),
    package_data={cfg['lib_name']: words('package_data')},
    include_package_data=True,
    python_requires=f">={cfg['min_python']}",
    install_requires=words('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': words('console_scripts'), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False,
)
