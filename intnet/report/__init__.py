"""A folder of results as one page: ``report.html``, to be read anywhere, without a network and without scripts.

The page is made from what lies in the folder and the sentences that a study says of it, and from nothing else: no date, no
path. So it changes when the results do, and only then.
"""

from intnet.report._page import write_report

__all__ = ["write_report"]
