"""One table of rows, written in every format that people have."""

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, object]]


def csv_text(rows: Rows, delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def json_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def excel(rows: Rows, sheets: Sequence[str] = ("rows",)) -> bytes:
    """A workbook whose sheets all hold the rows; numbers are numbers, all else is inline text."""

    def cell(value: object) -> str:
        if isinstance(value, int | float):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'

    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    data = "".join(f"<row>{''.join(map(cell, line))}</row>" for line in lines)
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relations = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="a"/>' for n, name in enumerate(sheets, start=1))
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships {relations}><Relationship Id="a" Type="{office}/officeDocument"'
        ' Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {space} xmlns:r="{office}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships {relations}><Relationship Id="a" Type="{office}/worksheet"'
        ' Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f"<worksheet {space}><sheetData>{data}</sheetData></worksheet>",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


def _bytes(encode: Callable[[Rows], bytes]) -> Callable[[Rows, Path], object]:
    return lambda rows, path: path.write_bytes(encode(rows))


WRITERS: dict[str, Callable[[Rows, Path], object]] = {
    "rows.csv": _bytes(lambda rows: csv_text(rows).encode()),
    "semicolons.csv": _bytes(lambda rows: csv_text(rows, ";").encode()),
    "bars.csv": _bytes(lambda rows: csv_text(rows, "|").encode()),
    "tabs.csv": _bytes(lambda rows: csv_text(rows, "\t").encode()),
    "latin.csv": _bytes(lambda rows: csv_text(rows, ";").encode("latin-1")),
    "mark.csv": _bytes(lambda rows: csv_text(rows).encode("utf-8-sig")),
    "excel_unicode.csv": _bytes(lambda rows: csv_text(rows, "\t").encode("utf-16")),
    "big_endian.csv": _bytes(lambda rows: csv_text(rows).encode("utf-16-be")),
    "rows.tsv": _bytes(lambda rows: csv_text(rows, "\t").encode()),
    "rows.csv.gz": _bytes(lambda rows: gzip.compress(csv_text(rows, ";").encode("latin-1"))),
    "rows.csv.bz2": _bytes(lambda rows: bz2.compress(csv_text(rows).encode())),
    "rows.csv.zst": _bytes(lambda rows: pa.compress(csv_text(rows).encode(), "zstd", asbytes=True)),
    "rows.jsonl": _bytes(lambda rows: json_lines(rows).encode()),
    "rows.ndjson": _bytes(lambda rows: json_lines(rows).encode("utf-8-sig")),
    "rows.jsonl.gz": _bytes(lambda rows: gzip.compress(json_lines(rows).encode())),
    "rows.json": _bytes(lambda rows: json.dumps(list(rows), indent=2).encode()),
    "lines.json": _bytes(lambda rows: json_lines(rows).encode()),
    "wide.json": _bytes(lambda rows: json.dumps(list(rows)).encode("utf-16")),
    "rows.parquet": lambda rows, path: pq.write_table(_table(rows), path),
    "rows.xlsx": _bytes(excel),
}
