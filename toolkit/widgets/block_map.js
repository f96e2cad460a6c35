const [EMPTY, CACHED, HELD] = [0, 1, 2];
const STATE_NAMES = ["empty", "cached", "held"];
const MAX_CELL = 24;
const HISTORY_AFTER_MS = 120;

export default {
  render({ model, el }) {
    const page = mount(el);
    let meta = {};
    let cells = null; // arrays of the last frame
    let first = null; // index in owners of each block's first holder
    let grid = { size: 12, columns: 1, rows: 1 };
    let cursor = -1;
    let chosen = []; // the ids of requests whose blocks stand out
    let told = { block: -1, rows: [] };
    let pointer = null;
    let historyTimer = 0;
    let image = null;
    const sheet = document.createElement("canvas");
    const packed = new Map(); // colours as pixels

    // ---- controls

    const caption = make("div", { class: "tk-number", "aria-live": "off" }, "Waiting for the kernel");
    const slider = make("input", { type: "range", min: 0, max: 0, value: 0, class: "tk-grow",
      "aria-label": "Step", oninput: () => go(Number(slider.value)) });
    const back = make("button", { title: "One step back (left arrow)",
      onclick: () => go(meta.step - 1) }, "◀");
    const next = make("button", { title: "One step on (right arrow)",
      onclick: () => go(meta.step + 1) }, "▶");
    const follow = make("button", { title: "Show the newest step as it comes (End)",
      onclick: () => link.send("follow") }, "Newest");
    const note = make("div", { class: "tk-note" });
    const place = make("div", { style: "position:relative" });
    const key = make("div");
    el.append(make("div", { class: "tk-bar" }, back, slider, next, follow), caption, place, key, note);
    const surface = canvas(place, draw, { height: 60, focusable: true,
      label: "Map of KV blocks; arrow keys change the step, Shift and arrows move between blocks" });
    const tip = tooltip(place);

    function go(step) {
      if (!cells || slider.disabled) return;
      const wanted = Math.min(Math.max(step, meta.oldest), meta.newest);
      slider.value = wanted;
      link.send("step", { step: wanted });
    }

    function move(by) {
      if (!cells) return;
      cursor = Math.min(Math.max(cursor < 0 ? 0 : cursor + by, 0), cells.state.length - 1);
      const box = surface.node.getBoundingClientRect();
      const x = (cursor % grid.columns) * grid.size;
      const y = Math.floor(cursor / grid.columns) * grid.size;
      point({ clientX: box.left + x + grid.size, clientY: box.top + y + grid.size });
      surface.redraw();
    }

    keys(el, {
      ArrowLeft: () => go(meta.step - 1),
      ArrowRight: () => go(meta.step + 1),
      PageDown: () => go(meta.step + 10),
      PageUp: () => go(meta.step - 10),
      Home: () => go(meta.oldest),
      End: () => link.send("follow"),
      "Shift+ArrowLeft": () => move(-1),
      "Shift+ArrowRight": () => move(1),
      "Shift+ArrowUp": () => move(-grid.columns),
      "Shift+ArrowDown": () => move(grid.columns),
      Enter: () => choose(cursor),
      Escape: () => (choose(-1), leave()),
    });

    // ---- drawing

    function layout(width) {
      const count = cells.state.length;
      let size = MAX_CELL;
      while (size > 3 && Math.ceil(count / Math.floor(width / size)) * size > meta.max_height_px) size -= 1;
      const columns = Math.max(1, Math.min(count, Math.floor(width / size)));
      return { size, columns, rows: Math.ceil(count / columns) };
    }

    function draw(ctx, width, height, palette) {
      if (!cells) {
        ctx.fillStyle = palette.muted;
        ctx.fillText(meta.newest === undefined ? "" : "No blocks to show.", 4, 20);
        return;
      }
      grid = layout(width);
      const wanted = grid.rows * grid.size + 2;
      if (wanted !== height) return surface.setHeight(wanted);
      const { size, columns } = grid;
      const side = size - (size > 5 ? 1 : 0);
      const wide = columns * size;
      if (image?.width !== wide || image?.height !== grid.rows * size) {
        image = new ImageData(wide, grid.rows * size);
        sheet.width = wide;
        sheet.height = grid.rows * size;
      }
      const pixels = new Uint32Array(image.data.buffer);
      pixels.fill(0);
      const fill = (x, y, width_, height_, paint) => {
        for (let row = y; row < y + height_; row += 1) {
          pixels.fill(paint, row * wide + x, row * wide + x + width_);
        }
      };
      const isChosen = meta.owners.map((name) => chosen.includes(name));
      const isPicked = isChosen.includes(true); // else who was chosen holds nothing at this step
      const rest = isPicked ? 0.35 : 1;
      const [empty, cached] = [palette.free, palette.cached].map((colour) => pixel(colour, rest));
      const paints = meta.paints.map((index) => palette.owners[index]);
      for (let block = 0; block < cells.state.length; block += 1) {
        const x = (block % columns) * size;
        const y = Math.floor(block / columns) * size;
        if (cells.state[block] !== HELD) {
          fill(x, y, side, side, cells.state[block] === CACHED ? cached : empty);
          // Hollow, so that it is not taken for somebody's green block.
          if (cells.state[block] === CACHED && side > 6) fill(x + 2, y + 2, side - 4, side - 4, empty);
          continue;
        }
        const strength = !isPicked || stands(block, isChosen) ? 1 : 0.12;
        // New blocks are strong; one that is held for 50 steps or more keeps 60 % of its colour.
        const age = cells.age[block];
        const shade = age < 0 ? 1 : 1 - 0.4 * Math.min(age / 50, 1);
        const paint = paints[first[block]];
        const filled = Math.max(1, Math.round((side * cells.filled[block]) / meta.block_size));
        fill(x, y, side, side - filled, pixel(paint, 0.28 * strength));
        fill(x, y + side - filled, side, filled, pixel(paint, shade * strength));
        if (cells.ends[block] - start(block) > 1) {
          const dot = Math.max(1, Math.round(side / 3));
          const inset = Math.floor((side - dot) / 2);
          fill(x + inset, y + inset, dot, dot, pixel(palette.shared, Math.max(strength, 0.2)));
        }
      }
      // One picture, not ten thousand rectangles: within a frame however many blocks there are.
      sheet.getContext("2d").putImageData(image, 0, 0);
      ctx.imageSmoothingEnabled = false;
      ctx.drawImage(sheet, 0, 0);
      if (cursor >= 0 && cursor < cells.state.length) {
        ctx.strokeStyle = palette.text;
        ctx.lineWidth = 2;
        ctx.strokeRect((cursor % columns) * size, Math.floor(cursor / columns) * size, side, side);
      }
    }

    /** A colour as ImageData holds it: alpha, blue, green, red from the highest byte down. */
    function pixel(colour, alpha) {
      const known = `${colour}${alpha}`;
      if (!packed.has(known)) {
        const value = parseInt(colour.slice(1), 16);
        const [red, green, blue] = [value >> 16, (value >> 8) & 255, value & 255];
        packed.set(known, ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0);
      }
      return packed.get(known);
    }

    function stands(block, isChosen) {
      for (let index = start(block); index < cells.ends[block]; index += 1) {
        if (isChosen[cells.holders[index]]) return true;
      }
      return false;
    }

    const start = (block) => (block === 0 ? 0 : cells.ends[block - 1]);
    const holders = (block) => Array.from(cells.holders.subarray(start(block), cells.ends[block]));

    // ---- pointing

    function blockAt(event) {
      if (!cells) return -1;
      const box = surface.node.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / grid.size);
      const row = Math.floor((event.clientY - box.top) / grid.size);
      const block = row * grid.columns + column;
      return column >= 0 && column < grid.columns && block < cells.state.length ? block : -1;
    }

    function point(at) {
      pointer = at;
      describe();
      clearTimeout(historyTimer);
      if (told.block !== cursor && !meta.note) {
        const block = cursor;
        historyTimer = setTimeout(() => link.send("history", { block }), HISTORY_AFTER_MS);
      }
    }

    function describe() {
      if (!pointer || !cells || cursor < 0) return tip.hide();
      const names = holders(cursor).map((owner) => meta.owners[owner]);
      const shown = names.slice(0, 4).join(", ") + (names.length > 4 ? ` and ${names.length - 4} more` : "");
      const history = told.block === cursor ? told.rows : [];
      tip.show(pointer, [
        ["block", `${cursor}, ${STATE_NAMES[cells.state[cursor]]}`],
        names.length ? ["held by", shown] : null,
        ["references", names.length],
        ["tokens", `${cells.filled[cursor]} of ${meta.block_size}`],
        ["hash", cells.hash[cursor] ? cells.hash[cursor].toString(16).padStart(8, "0") : "none"],
        cells.state[cursor] === HELD && cells.age[cursor] >= 0 ? ["held for", `${cells.age[cursor]} steps`] : null,
        cells.hits[cursor] > 0 ? ["reused", `${cells.hits[cursor]} times`] : null,
        ...history.map((line, index) => [index ? "" : "history", line]),
      ]);
    }

    function leave() {
      pointer = null;
      cursor = -1;
      clearTimeout(historyTimer);
      tip.hide();
      surface.redraw();
    }

    function choose(block) {
      const names = block >= 0 && cells ? holders(block).map((owner) => meta.owners[owner]) : [];
      chosen = names.join() === chosen.join() ? [] : names;
      showText();
      surface.redraw();
    }

    surface.node.addEventListener("pointermove", (event) => {
      const block = blockAt(event);
      if (block < 0) return leave();
      if (block !== cursor) surface.redraw();
      cursor = block;
      point({ clientX: event.clientX, clientY: event.clientY });
    });
    surface.node.addEventListener("pointerleave", leave);
    surface.node.addEventListener("click", (event) => choose(blockAt(event)));

    // ---- frames

    const known = (name) => (meta.owners.includes(name) ? name : `${name} (holds nothing at this step)`);

    function showText() {
      note.textContent = meta.note ?? "";
      slider.disabled = back.disabled = next.disabled = Boolean(meta.note) || !cells;
      [slider.min, slider.max] = [meta.oldest, meta.newest];
      if (document.activeElement !== slider || meta.follows) slider.value = meta.step ?? 0;
      follow.hidden = !meta.live && Boolean(meta.note);
      follow.setAttribute("aria-pressed", String(meta.follows));
      if (!cells) {
        caption.textContent = "No blocks to show.";
        return;
      }
      const { held, shared, cached, empty } = meta.counts;
      caption.textContent = `After step ${meta.step} of ${meta.newest}: ${held} held `
        + `(${shared} shared), ${cached} cached, ${empty} empty; ${cells.state.length} blocks of `
        + `${meta.block_size} tokens` + (chosen.length ? `; standing out: ${chosen.map(known).join(", ")}` : "");
      const palette = colours(el);
      const named = meta.owners.slice(0, 12);
      legend(key, [
        ...named.map((name, index) => [palette.owners[meta.paints[index]], name]),
        ...(meta.owners.length > 12 ? [["transparent", `${meta.owners.length - 12} more`]] : []),
        [`linear-gradient(${palette.free}, ${palette.free}) center / 6px 6px no-repeat `
          + palette.cached, "cached: free, reusable"],
        [palette.free, "empty"],
        [`radial-gradient(${palette.shared} 30%, ${palette.owners[0]} 32%)`, "shared"],
      ]);
    }

    const forget = page.onTheme(showText);
    const link = onFrame(model, (kind, facts, arrays) => {
      if (kind === "cells") {
        meta = facts;
        cells = arrays.state ? arrays : null;
        if (cells) {
          first = Array.from(cells.state, (state, block) =>
            state === HELD ? cells.holders[start(block)] : -1);
        }
        told = { block: -1, rows: [] };
        showText();
        surface.redraw();
      } else if (kind === "history") {
        told = facts;
      }
      describe();
    }, el);

    return () => {
      clearTimeout(historyTimer);
      forget();
      link.close();
      surface.dispose();
      page.dispose();
    };
  },
};
